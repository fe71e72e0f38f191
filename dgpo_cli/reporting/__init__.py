"""What a person sees: tables, progress, token views."""
