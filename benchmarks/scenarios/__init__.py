"""One module for each kind of case: what is prepared, who takes part, what is read off."""
