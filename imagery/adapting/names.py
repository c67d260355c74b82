"""The files of an event's model: how they are called, here without what reads them."""

MODEL_FILES = ("event-model.json", "event-model.safetensors")
