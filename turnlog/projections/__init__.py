"""Pure folds that make read models of the log, and the engine that keeps stored ones up to date."""
