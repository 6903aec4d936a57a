"""What every tier shares on the wire: errors, tensors, server bootstrap, channels."""
