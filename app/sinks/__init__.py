"""Where inspections are delivered to: an MQTT broker, webhooks; each at its own pace."""
