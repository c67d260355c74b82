"""What a registered model says of itself: a card for people, and a STAC item for catalogues."""
