"""What a completion earns: graders, and functions of the user's own."""
