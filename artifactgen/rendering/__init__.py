"""Drawing: numpy in, PNG bytes out; knows no model and no file."""
