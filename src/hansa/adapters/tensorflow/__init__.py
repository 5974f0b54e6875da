"""TensorFlow functions as local computations."""
