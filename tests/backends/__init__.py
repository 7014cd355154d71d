"""What every broker has to do alike, shown with each of them."""
