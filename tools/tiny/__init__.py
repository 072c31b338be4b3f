"""How the bundled model is made: scenes, the tasks on them, training and evaluation."""
