"""HTTP carriers behind one interface; concrete engines are picked here and nowhere else."""
