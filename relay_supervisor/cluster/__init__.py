"""Several supervisors for the same cameras: who commands, and the state that they share, as objects of Kubernetes."""
