"""The endpoints by their subject, each with the models of its request and answer."""
