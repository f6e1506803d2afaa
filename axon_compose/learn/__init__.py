"""From a description to a model that knows something: data, training, tasks, races."""
