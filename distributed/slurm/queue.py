def ask(ids):
    return {}
