"""What a picture is described by: embeddings and distances that losses, guards and reports share."""
