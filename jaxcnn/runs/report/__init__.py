"""What a run was, as one page that can be mailed; what tells several runs apart."""
