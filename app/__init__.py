"""The inspection service and its clients: how a model is used."""
