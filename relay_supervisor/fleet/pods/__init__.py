"""Workers as Pods of Kubernetes, one a camera: made, watched and deleted through its API."""
