"""What all processes in containers share."""
