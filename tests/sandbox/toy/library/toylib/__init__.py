"""What the layer of the toy stack brings."""

GREETING = "from the layer"
