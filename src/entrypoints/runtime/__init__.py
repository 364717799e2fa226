"""What a process of ours needs: memory, stop requests, the error boundary."""
