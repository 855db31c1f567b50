"""What an attacker would send, and what the product does with it, on real servers."""
