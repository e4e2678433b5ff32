"""Google's command quota: limits as data, sliding logs, the priority queue and the dispatcher."""
