"""What happens, in which order, where: data sets in, tasks out."""
