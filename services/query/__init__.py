"""The query service: answers KFL statements over recordings, and gives their packets back."""
