"""Networks that move channels: what they are traced to, and that every student is right."""
