"""Delivery of inspections to an MQTT broker and to webhooks, each at its own pace."""
