"""The failure matrix of workers in Pods: `make cluster-matrix` at its size, with figures; smaller in `make cluster`."""
