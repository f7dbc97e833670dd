"""What a Docker Swarm needs: its stack file, secrets, and images on its hosts."""
