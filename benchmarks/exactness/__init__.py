"""Equal to the reference libraries?"""
