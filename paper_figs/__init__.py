"""The paper's figures again, from runs made here, and one page that shows the whole argument."""
