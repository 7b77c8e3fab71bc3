"""What the reports tell: by bounce, by activity, by domain, by recipient.

Counts of deliveries come from `tally`, which is small whatever was sent; `delivery` itself is only ever read
through its indexes.
"""
