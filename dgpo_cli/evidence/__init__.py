"""Studies of what credit does: whether it finds the wrong token, and what tokens are worth where two models differ."""
