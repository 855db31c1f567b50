"""Charts as points, and what images say of themselves before anybody decodes them."""
