"""Damaged and hostile inputs, generated: each parser accepts one or raises a UserError, and writes nothing."""
