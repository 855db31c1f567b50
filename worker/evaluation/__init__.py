"""How good a model is: arrays in, figures, plots and a page out. It knows no queue, no store and no decoding."""
