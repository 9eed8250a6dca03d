"""Weight formats and the products over them."""
