"""Every kernel on every instruction set of this CPU, against formulas in wider arithmetic."""
