"""Studies of what credit does: whether it finds the wrong token, and beside which floors."""
