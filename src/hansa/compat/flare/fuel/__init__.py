"""What programs use of FLARE beside its apps."""
