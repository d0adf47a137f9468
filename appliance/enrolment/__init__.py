"""Transport certificates, the membership register, and how a member joins."""
