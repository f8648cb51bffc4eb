"""What Linux says and offers, for every process of ours: no other package of this application is needed here."""
