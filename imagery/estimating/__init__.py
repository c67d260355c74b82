"""From a judged sample to totals, shares and accuracies, each with its 95 % interval."""
