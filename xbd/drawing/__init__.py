"""How a synthetic scene is drawn: layout and plan on paper, then canvas, damage and scene in pixels."""
