"""How fast, against a named reference in the same process?"""
