"""Workers as processes of this machine: forked, watched through the kernel, ended by signals."""
