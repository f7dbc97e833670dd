"""What a machine may lack before a fleet of containers can start."""
