"""Looking at a model and at what it says: tables of layers, receptive fields, drawings."""
