"""Reading an autograd graph: loss terms, places where parameters enter, Jacobian factors."""
