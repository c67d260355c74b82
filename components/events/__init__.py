"""Models of events: how they are registered, which of them stands for its event, and how predict finds one."""
