"""How a model is used: the inspection service and its clients."""
